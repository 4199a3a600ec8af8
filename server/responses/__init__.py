"""POST /v1/responses: a conversation under OpenAI's newer names, answered as a chat and worded as a response."""
