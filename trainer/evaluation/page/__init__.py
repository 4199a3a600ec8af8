"""The report as one HTML page, with its pictures as PNG files beside it."""
