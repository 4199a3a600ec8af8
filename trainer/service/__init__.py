"""The trainer as a service of its own: a worker that does one run after the other, and a port that shows it.

`serve` binds the port, lowers the process's priority and starts `worker`, which asks one `work.WorkSource` after the
other for runs: `job_source.JobSource`, the fine-tuning jobs of the store, and `continuous.ContinuousJob`, which keeps
improving one proxy in rounds. Of a job, `file_clerk` looks at the file, `heartbeat` keeps the lease and `job_report`
tells its owner what happens. `gauges` are the service's metrics, `app` its three routes. It meets the server in the
store and in the folder of published proxies only.
"""
