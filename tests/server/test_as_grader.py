"""This server as the endpoint that a run's grading model is asked at."""

import pytest

from proxy_model.errors import GraderFailed
from store.fine_tuning.graders import ScoreModelGrader, parse_grader
from tests.server.conftest import RunningServer
from trainer.rewards.endpoint import ChatEndpoint
from trainer.rewards.endpoint_config import EndpointConfig
from trainer.rewards.model import Conversation
from trainer.rewards.pairwise import PairwiseJudge
from trainer.rewards.score_model import ScoreModel
from trainer.rewards.verdicts import Verdicts

TALK = [Conversation([{"role": "user", "content": "Hello?"}], "good")]


def scorer(server: RunningServer, model: str, verdicts: Verdicts) -> ScoreModel:
    grader = parse_grader(
        {
            "type": "score_model",
            "name": "kind",
            "model": model,
            "input": [{"role": "user", "content": "{{sample.output_text}}"}],
            "sampling_params": {"temperature": 0, "max_completions_tokens": 8},
        }
    )
    assert isinstance(grader, ScoreModelGrader)
    config = EndpointConfig(url=f"{server.url}/v1")
    return ScoreModel(grader, ChatEndpoint(config, verdicts))


def test_a_tiny_llm_s_babble_is_no_score_and_is_counted(server: RunningServer) -> None:
    verdicts = Verdicts()

    with pytest.raises(GraderFailed, match="tiny:base did not answer what was asked for, but"):
        scorer(server, "tiny:base", verdicts).score(TALK)

    usage = server.chat("x", model="tiny:base", max_tokens=8).json()["usage"]
    assert verdicts.num_requests == 2
    assert verdicts.num_tokens > 2 * usage["completion_tokens"]


def test_a_model_that_is_not_there_is_named_by_what_the_server_said(server: RunningServer) -> None:
    with pytest.raises(GraderFailed, match=r"it answered 404: .*nobody"):
        scorer(server, "nobody", Verdicts()).score(TALK)


def test_the_pairwise_judge_speaks_the_server_s_language(server: RunningServer) -> None:
    endpoint = scorer(server, "tiny:base", Verdicts()).endpoint

    with pytest.raises(GraderFailed, match="'pairwise judge' failed: tiny:base did not answer"):
        PairwiseJudge(endpoint=endpoint, model="tiny:base").compare(TALK[0].messages, "good", "bad")
