"""A reward model that adapts its backbone: LoRA on a copy of an LLM, and a linear head on what it reads.

The backbone is cut off behind the layer that is read; its own weights stay as they are and are not stored.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self, TypeAlias

import torch
from torch import Tensor, nn

from proxy_model.errors import BadCheckpoint, InvalidParameter, ModelUnavailable
from proxy_model.llm.frozen_llm import resolve_dtype
from proxy_model.llm.identity import fingerprint_of
from proxy_model.llm.source import resolve_llm
from proxy_model.llm.tokenizer import ChatTokenizer
from trainer.rewards.folder import StoredReward
from trainer.rewards.frozen_head import require_same_llm
from trainer.rewards.linear_head import LinearHead
from trainer.rewards.model import Conversation

KIND = "lora"

_TEXTS_PER_PASS = 16

Text: TypeAlias = tuple[list[int], list[int]]
"""The tokens of a prompt, and of the answer to it."""
_PREFIX = "adapter."


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraShape:
    """What is read and adapted."""

    backbone: str
    """As `load_llm` takes it."""

    tap: int
    """Layer that is read, numbered from 1."""

    layers: int
    rank: int
    alpha: int
    max_tokens: int = 128
    max_prompt_tokens: int = 256

    def __post_init__(self) -> None:
        for name in ("tap", "layers", "rank", "alpha", "max_tokens", "max_prompt_tokens"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InvalidParameter(name, value, "a whole number, at least 1")
        if type(self.backbone) is not str:
            raise InvalidParameter("backbone", self.backbone, "a name, hub id or folder")


class LoraBackbone:
    """A causal LM of transformers up to layer `tap`, with adapters that start as nothing.

    Weights are float32. Where bfloat16 is native matrices are multiplied in it, and a text's states depend on the
    texts beside it by its rounding.
    """

    def __init__(self, shape: LoraShape) -> None:
        """Raises `ModelUnavailable`, `InvalidParameter`."""
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, AutoTokenizer

        folder = resolve_llm(shape.backbone).folder_or_id
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder)
            model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, use_safetensors=True)
        except (OSError, ValueError, KeyError) as error:
            raise ModelUnavailable(f"{shape.backbone} cannot be loaded: {error}") from error
        self.shape = shape
        self.tokenizer = ChatTokenizer(tokenizer)
        self.fingerprint = fingerprint_of(model, self.tokenizer)
        body = model.base_model.eval().requires_grad_(False)
        names = _cut(body, shape.tap, shape.layers)
        config = LoraConfig(r=shape.rank, lora_alpha=shape.alpha, target_modules=names, lora_dropout=0.0)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._is_half = resolve_dtype("auto", self.device) == torch.bfloat16
        self.model: Any = get_peft_model(body, config).to(self.device)

    def encode(self, conversation: Conversation) -> Text:
        """What is read of a conversation: the end of its prompt, and the beginning of its answer."""
        prompt = self.tokenizer.apply_chat_template(conversation.messages)[-self.shape.max_prompt_tokens :]
        return prompt, self.tokenizer.encode(conversation.answer)[: self.shape.max_tokens] or prompt[-1:]

    def read(self, texts: Sequence[Text]) -> Tensor:
        """(B, D) float32: the mean state of each answer's tokens, with gradients to the adapters if any are recorded.

        All are padded to the longest one.
        """
        longest = max(num_tokens(text) for text in texts)
        tokens, is_read, is_answer = (torch.zeros(len(texts), longest, dtype=torch.long) for _ in range(3))
        for row, (prompt, answer) in enumerate(texts):
            end = len(prompt) + len(answer)
            tokens[row, :end] = torch.tensor(prompt + answer)
            is_read[row, :end] = 1
            is_answer[row, len(prompt) : end] = 1
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self._is_half):
            states = self.model(
                input_ids=tokens.to(self.device), attention_mask=is_read.to(self.device), use_cache=False
            ).last_hidden_state
        shares = (is_answer / is_answer.sum(dim=1, keepdim=True)).to(self.device)
        return torch.einsum("bt,btd->bd", shares, states.float()).cpu()

    def adapters(self) -> dict[str, Tensor]:
        """What has been learnt."""
        from peft import get_peft_model_state_dict

        return {name: tensor.detach().cpu() for name, tensor in get_peft_model_state_dict(self.model).items()}

    def load_adapters(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `adapters`. Raises `BadCheckpoint("format")` for other names or shapes."""
        from peft import set_peft_model_state_dict

        expected = {name: tuple(tensor.shape) for name, tensor in self.adapters().items()}
        if {name: tuple(tensor.shape) for name, tensor in tensors.items()} != expected:
            raise BadCheckpoint("format", "the adapters do not fit the backbone's layers")
        set_peft_model_state_dict(self.model, tensors)


@dataclass(frozen=True, slots=True)
class LoraReward:
    """An adapted backbone and the head on it."""

    backbone: LoraBackbone
    head: LinearHead

    @torch.no_grad()
    def score(self, conversations: Sequence[Conversation]) -> Tensor:
        """(B,) float32 in deviations of the training answers' scores."""
        texts = [self.backbone.encode(each) for each in conversations]
        order = sorted(range(len(texts)), key=lambda index: num_tokens(texts[index]))
        scores = torch.zeros(len(texts))
        for start in range(0, len(order), _TEXTS_PER_PASS):
            batch = order[start : start + _TEXTS_PER_PASS]
            states = self.backbone.read([texts[index] for index in batch])
            scores[batch] = self.head.score(states, torch.zeros(len(batch)))
        return scores

    def stored(self, card: dict[str, Any]) -> StoredReward:
        """What `write_reward` takes: adapters and head, not the backbone."""
        adapters = {f"{_PREFIX}{name}": tensor for name, tensor in self.backbone.adapters().items()}
        return StoredReward(
            kind=KIND,
            reads=asdict(self.backbone.shape),
            fingerprint=dict(self.backbone.fingerprint),
            tensors=self.head.tensors() | adapters,
            card=card,
        )

    @classmethod
    def from_stored(cls, stored: StoredReward) -> Self:
        """Raises `FingerprintMismatch` for another backbone, `BadCheckpoint("format")`, `ModelUnavailable`."""
        try:
            shape = LoraShape(**stored.reads)
        except (TypeError, InvalidParameter) as error:
            raise BadCheckpoint("format", f"the reward model's settings are broken: {error}") from error
        backbone = LoraBackbone(shape)
        require_same_llm(stored.fingerprint, backbone.fingerprint)
        is_adapter = {name: name.startswith(_PREFIX) for name in stored.tensors}
        head = {name: tensor for name, tensor in stored.tensors.items() if not is_adapter[name]}
        adapters = {name.removeprefix(_PREFIX): stored.tensors[name] for name in stored.tensors if is_adapter[name]}
        backbone.load_adapters(adapters)
        return cls(backbone, LinearHead.from_tensors(head, backbone.model.config.hidden_size))


def num_tokens(text: Text) -> int:
    """Of prompt and answer."""
    return sum(map(len, text))


def num_layers(backbone: str) -> int:
    """Layers of an LLM, by its configuration alone. Raises `ModelUnavailable`."""
    from transformers import AutoConfig

    try:
        found = AutoConfig.from_pretrained(resolve_llm(backbone).folder_or_id)
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{backbone} cannot be loaded: {error}") from error
    return int(found.get_text_config().num_hidden_layers)


def _cut(body: Any, tap: int, num_adapted: int) -> list[str]:
    """Drop the layers above `tap`; returns the paths of the linear parts of the last `num_adapted` that are left."""
    count = body.config.num_hidden_layers
    stacks = [(n, m) for n, m in body.named_children() if isinstance(m, nn.ModuleList) and len(m) == count]
    if len(stacks) != 1:
        raise ModelUnavailable(f"{type(body).__name__} has no single stack of layers to adapt")
    if tap > count:
        raise InvalidParameter("taps", tap, f"in [1, {count}]")
    name, stack = stacks[0]
    setattr(body, name, stack[:tap])
    body.config.num_hidden_layers = tap
    return [
        f"{name}.{number}.{path}"
        for number in range(max(0, tap - num_adapted), tap)
        for path, part in stack[number].named_modules()
        if isinstance(part, nn.Linear)
    ]
