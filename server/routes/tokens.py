"""POST /tokenize and POST /detokenize: what the LLM reads."""

from fastapi import APIRouter, Request

from proxy_model.llm.tokenizer import ChatTokenizer
from server.body import read_body
from server.chat.tools import no_tools, shown_tool
from server.dependencies import ApiKey, ServiceDep
from server.errors import invalid
from server.openapi import json_body
from server.proxies.model_name import parse_model_name
from server.schemas.messages import to_template
from server.schemas.tokens import DetokenizedText, DetokenizeRequest, TokenizeRequest, Tokens
from server.service import Serving

router = APIRouter(dependencies=[ApiKey])


@router.post("/tokenize", openapi_extra=json_body(TokenizeRequest))
async def tokenize(request: Request, service: ServiceDep) -> Tokens:
    """Token ids of a text or a conversation, and how many fit."""
    serving = service.serving()
    body = await read_body(request, TokenizeRequest, service.settings.max_body_bytes)
    _check_model(body.model, serving)
    if (body.prompt is None) == (body.messages is None):
        raise invalid("Give either 'prompt' or 'messages'.", param="prompt", code="missing_required_parameter")
    if body.continue_final_message and body.add_generation_prompt:
        message = "Set 'continue_final_message' or 'add_generation_prompt', not both."
        raise invalid(message, param="continue_final_message")
    ids = await service.backend.ask_tokenizer(lambda tokenizer: token_ids(tokenizer, body))
    names = None
    if body.return_token_strs:
        names = await service.backend.ask_tokenizer(lambda it: [it.token_name(token) for token in ids])
    return Tokens(count=len(ids), max_model_len=serving.llm.max_context, tokens=ids, token_strs=names)


@router.post("/detokenize", openapi_extra=json_body(DetokenizeRequest))
async def detokenize(request: Request, service: ServiceDep) -> DetokenizedText:
    """The text of token ids."""
    serving = service.serving()
    body = await read_body(request, DetokenizeRequest, service.settings.max_body_bytes)
    _check_model(body.model, serving)
    if max(body.tokens, default=0) >= serving.llm.vocab_size:
        message = f"Invalid value for 'tokens': token ids must be in [0, {serving.llm.vocab_size})."
        raise invalid(message, param="tokens")
    return DetokenizedText(prompt=await service.backend.ask_tokenizer(lambda it: "".join(it.spell(body.tokens))))


def token_ids(tokenizer: ChatTokenizer, body: TokenizeRequest) -> list[int]:
    """What the LLM reads of `body`. Raises `ApiError` and `InvalidParameter`."""
    if body.prompt is not None:
        return tokenizer.encode_prompt(body.prompt, add_special_tokens=body.add_special_tokens is not False)
    if body.tools and tokenizer.tool_format is None:
        raise no_tools("tools")
    return tokenizer.apply_chat_template(
        [to_template(message) for message in body.messages or ()],
        tools=[shown_tool(tool) for tool in body.tools or ()],
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        add_special_tokens=bool(body.add_special_tokens),
    )


def _check_model(model: str | None, serving: Serving) -> None:
    if model is not None:
        parse_model_name(model, serving.llm.name)
