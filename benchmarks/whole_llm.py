"""What proxies are measured against: the whole LLM fine-tuned by TRL, with a proxy's prompts, answers and reward.

    pip install --constraint constraints.txt trl==1.16.0
    proxy-rlhf rollouts --settings demo/methods/answers.toml --output runs/answers
    python -m benchmarks.whole_llm dpo --answers runs/answers --output runs/llm-dpo [--seed 0]
    python -m benchmarks.whole_llm rloo --settings demo/methods/answers.toml --output runs/llm-rloo [--seed 0]
    proxy-rlhf evaluate llm:runs/llm-dpo llm:runs/llm-rloo --prompts data/helpful_prompts_test.jsonl.gz ...

`dpo` learns from the best and the worst of each prompt's recorded answers, as a proxy's `dpo` does; `rloo` samples and
scores its own. Weights and moments are float32, passes bfloat16; what is written is in bfloat16, with a
`training.json` that the evaluation's table reads.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, RLOOConfig, RLOOTrainer

from proxy_model.llm.frozen_llm import load_llm
from proxy_model.llm.source import resolve_llm
from trainer.config_file import read_config
from trainer.evaluation.origin import TRAINING_FILE, Origin
from trainer.loop import load_parts
from trainer.metrics import peak_rss_mib
from trainer.offline.data import OfflineData
from trainer.offline.folder import read_data
from trainer.parts import fitting_prompts
from trainer.rewards.model import Conversation, RewardModel
from trainer.rollout import prompt_indices


def shared(arguments: argparse.Namespace, *, learning_rate: float, beta: float) -> dict[str, object]:
    """Settings that both trainers have; the command line's rate and beta come before these."""
    return {
        "output_dir": str(arguments.output),
        "seed": arguments.seed,
        "learning_rate": arguments.learning_rate or learning_rate,
        "beta": arguments.beta or beta,
        "num_train_epochs": arguments.epochs,
        "lr_scheduler_type": "linear",
        "warmup_steps": 0.1,
        "max_grad_norm": 1.0,
        "bf16": True,
        "use_cpu": not torch.cuda.is_available(),
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
    }


class RecordedDPOTrainer(DPOTrainer):
    """Learns from token ids: an answer that was cut at its longest length gets no end token."""

    def _prepare_dataset(self, dataset: Dataset, *_: object) -> Dataset:
        return dataset

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        self._signature_columns = sorted({*self._signature_columns, "length"})


def dpo_trainer(arguments: argparse.Namespace) -> RecordedDPOTrainer:
    """One pass over the best and the worst of each prompt's answers."""
    data = OfflineData.of(read_data(arguments.answers, load_llm(arguments.model).fingerprint)).paired()
    rows = [
        {
            "prompt_ids": list(best.prompt_token_ids),
            "chosen_ids": list(best.token_ids),
            "rejected_ids": list(worst.token_ids),
            "length": len(best.prompt_token_ids) + max(len(best.token_ids), len(worst.token_ids)),
        }
        for best, worst in zip(data.trajectories[::2], data.trajectories[1::2], strict=True)
    ]
    settings = DPOConfig(
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        precompute_ref_log_probs=True,
        train_sampling_strategy="group_by_length",
        **shared(arguments, learning_rate=2e-5, beta=0.1),
    )
    model, tokenizer = opened(arguments.model)
    rows = rows[: arguments.num_prompts]
    return RecordedDPOTrainer(model, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer)


def rloo_trainer(arguments: argparse.Namespace) -> RLOOTrainer:
    """Answers sampled by the LLM in training, four to a prompt, scored by the settings' reward."""
    config = read_config(arguments.settings, seed=arguments.seed, output=arguments.output)
    parts = load_parts(config)
    assert parts.reward_model is not None
    prompts = fitting_prompts(config, parts)
    chosen = prompt_indices([0] * len(prompts), arguments.num_prompts or config.num_prompts, 0, config.seed)
    rollout = config.rollout
    settings = RLOOConfig(
        num_generations=rollout.responses_per_prompt,
        per_device_train_batch_size=rollout.responses_per_prompt * 4,
        gradient_accumulation_steps=3,
        max_completion_length=rollout.max_tokens,
        temperature=config.skam.temperature,
        top_p=config.skam.top_p,
        shuffle_dataset=False,
        **shared(arguments, learning_rate=5e-6, beta=0.05),
    )
    model, tokenizer = opened(arguments.model)
    return RLOOTrainer(
        model,
        reward_funcs=scorer(parts.reward_model),
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": list(prompts[index].messages)} for index in chosen]),
        processing_class=tokenizer,
    )


def scorer(reward: RewardModel) -> object:
    """A reward model as TRL asks one."""

    def reward_of(prompts: Sequence[list], completions: Sequence[list], **_: object) -> list[float]:
        answers = [each[-1]["content"] for each in completions]
        asked = [Conversation(messages, answer) for messages, answer in zip(prompts, answers, strict=True)]
        return reward.score(asked).tolist()

    return reward_of


def opened(source: str) -> tuple[object, object]:
    """Weights in float32, and the tokenizer."""
    folder = resolve_llm(source).folder_or_id
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32), AutoTokenizer.from_pretrained(folder)


def main() -> None:
    """Train, write the LLM and what it took."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    started = time.perf_counter()  # DPO's reference is read when the trainer is made
    trainer = (dpo_trainer if arguments.algorithm == "dpo" else rloo_trainer)(arguments)
    trainer.train()
    minutes = (time.perf_counter() - started) / 60
    model = trainer.model.to(torch.bfloat16)
    model.save_pretrained(arguments.output)
    trainer.processing_class.save_pretrained(arguments.output)
    (arguments.output / "log.json").write_text(json.dumps(trainer.state.log_history, indent=1))
    num_parameters = sum(each.numel() for each in model.parameters())
    origin = Origin(
        num_parameters=num_parameters,
        num_actor_parameters=num_parameters,
        algorithm=f"trl {arguments.algorithm}",
        seed=arguments.seed,
        iterations=trainer.state.global_step,
        prompts_seen=len(trainer.train_dataset) * arguments.epochs,
        minutes=minutes,
        memory_mib=peak_rss_mib(),
    )
    (arguments.output / TRAINING_FILE).write_text(json.dumps(origin.to_json(), indent=1))
    print(origin)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("algorithm", choices=("dpo", "rloo"))
    parser.add_argument("--answers", type=Path, help="of `dpo`: a folder of `proxy-rlhf rollouts`")
    parser.add_argument("--settings", type=Path, help="of `rloo`: prompts, reward and rollout of a proxy's run")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="smollm2-135m-instruct")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-prompts", type=int, help="the first ones; all, if it is left out")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--beta", type=float)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


if __name__ == "__main__":
    main()
