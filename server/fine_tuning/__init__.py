"""Fine-tuning jobs at the API: what is ordered (`order`) and how a job is shown (`shown`). The trainer does them."""
