"""From prompts to a served proxy with OpenAI's SDK; `proxy-rlhf serve` and `proxy-rlhf trainer` run on this machine."""

import gzip
import time

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
with gzip.open("data/helpful_prompts_train.jsonl.gz") as rows:
    prompts = b"".join(line for line, _ in zip(rows, range(96), strict=False))
file = client.files.create(file=("prompts.jsonl", prompts), purpose="fine-tune")
grader = {"type": "reward_model", "name": "helpful", "model": "helpful"}
settings = {"algorithm": "ppo", "batch_size": 24, "max_tokens": 48}
job = client.fine_tuning.jobs.create(
    model="smollm2-135m-instruct",
    training_file=file.id,
    suffix="my-helper",
    method={"type": "reinforcement", "reinforcement": {"grader": grader, "hyperparameters": settings}},
)
while job.status not in ("succeeded", "failed", "cancelled"):
    time.sleep(5)
    job = client.fine_tuning.jobs.retrieve(job.id)
    print(job.status, client.fine_tuning.jobs.list_events(job.id, limit=1).data[0].message)
if job.fine_tuned_model is None:
    raise SystemExit(job.error and job.error.message)
question = "How do I keep basil alive indoors?"
answer = client.chat.completions.create(model=job.fine_tuned_model, messages=[{"role": "user", "content": question}])
print(job.fine_tuned_model, answer.choices[0].message.content, sep="\n")
