"""Fine-tuning jobs: what can be ordered, what callers see of it (`jobs`), and how workers do it (`queue`).

    validating_files -> queued -> running -> succeeded
           any of the three may end as failed, or be paused; what has not ended may be cancelled
           paused -> validating_files or queued

A worker holds a running job by a lease that it renews; who comes across one that has run out may take the job over.
`journal` is what happened to a job: events, metrics, published versions. `graders` say what an answer is rewarded for.
"""
