"""The trainer as a service of its own: a worker that does one run after the other, and a port that shows it.

`serve` binds the port, lowers the process's priority and starts `worker`, which asks one `work.WorkSource` after the
other for runs: `continuous.ContinuousJob`, which keeps improving one proxy in rounds.
`gauges` are its metrics, `app` its three routes. It meets the server in the folder of published proxies only.
"""
