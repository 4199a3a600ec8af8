"""`prediction`: the same answer in fewer passes, and what of it came true."""

from collections.abc import Iterator

import httpx
import openai
import pytest
import torch

from proxy_model.llm.frozen_llm import FrozenLLM
from server.settings import Settings
from tests.architectures import random_model
from tests.conftest import needs_kernels
from tests.server.conftest import PATIENCE_SECONDS, RunningServer, _start
from tests.tiny_tokenizer import byte_tokenizer


@pytest.fixture(scope="module")
def drafting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    llm = FrozenLLM(random_model("llama_grouped").to(torch.bfloat16), byte_tokenizer(), "tiny")
    server = _start(llm, Settings(home=tmp_path_factory.mktemp("home"), port=0, strict=True))
    yield server
    server.server.should_exit = True
    server.thread.join(PATIENCE_SECONDS)


def ask(server: RunningServer, prediction: str | list[dict[str, str]] | None = None) -> httpx.Response:
    said = None if prediction is None else {"type": "content", "content": prediction}
    bias = {str(token): 100 for token in (200, 201)}  # bytes, so that the answer's text is the tokens' again
    return server.chat(prediction=said, logit_bias=bias, max_tokens=24, temperature=1, seed=4, ignore_eos=True)


@needs_kernels
def test_an_answer_that_was_predicted_is_the_same_and_takes_fewer_steps(drafting: RunningServer) -> None:
    engine = drafting.engine
    plain = ask(drafting).json()
    text = plain["choices"][0]["message"]["content"]
    steps, accepted = engine.num_steps, drafting.metric("spec_decode_accepted_tokens_total")

    predicted = ask(drafting, [{"type": "text", "text": text[:5]}, {"type": "text", "text": text[5:]}]).json()

    details = predicted["usage"].pop("completion_tokens_details")
    assert predicted["choices"] == plain["choices"]
    assert "completion_tokens_details" not in plain["usage"]
    assert engine.num_steps - steps == 24 - details["accepted_prediction_tokens"]
    assert details["accepted_prediction_tokens"] > 12
    gained = drafting.metric("spec_decode_accepted_tokens_total") - accepted
    assert gained == details["accepted_prediction_tokens"]
    assert drafting.metric("spec_decode_draft_tokens_total") >= gained + details["rejected_prediction_tokens"]


@needs_kernels
def test_the_sdk_tells_what_came_true_at_the_end_of_a_stream(drafting: RunningServer) -> None:
    client = openai.OpenAI(base_url=f"{drafting.url}/v1", api_key="none")
    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "hello"}],
        max_tokens=6,
        prediction={"type": "content", "content": "zzzz"},
        logit_bias={"200": 100},
        stream=True,
        stream_options={"include_usage": True},
    )

    usage = [chunk.usage for chunk in stream][-1]

    assert usage is not None
    assert usage.completion_tokens_details is not None
    assert usage.completion_tokens_details.rejected_prediction_tokens == 0
    assert (
        usage.completion_tokens_details.accepted_prediction_tokens == 2
    )  # of one token over and over, from the fourth


def test_a_server_that_drafts_nothing_says_that_it_ignores_a_prediction(server: RunningServer) -> None:
    answer = server.chat(prediction={"type": "content", "content": "again"})

    assert answer.status_code == 200
    assert answer.headers["x-ignored-fields"] == "prediction"
    assert answer.json()["usage"]["completion_tokens_details"] == {
        "accepted_prediction_tokens": 0,
        "rejected_prediction_tokens": 0,
    }


@pytest.mark.parametrize(
    "prediction",
    [
        "text",
        {"type": "text", "content": "x"},
        {"type": "content"},
        {"type": "content", "content": [{"type": "audio"}]},
    ],
)
def test_a_prediction_of_another_form_is_refused(server: RunningServer, prediction: object) -> None:
    answer = server.chat(prediction=prediction)

    assert answer.status_code == 400
    assert answer.json()["error"]["param"].startswith("prediction")
