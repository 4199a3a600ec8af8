"""Chat templates that have tools, in the three ways of writing a call as JSON, and one that writes none."""

_TURNS = """
{%- for m in messages %}
    {%- if m.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + m.content }}
        {%- for call in m.tool_calls or [] %}
            {{- '\\n' if m.content or not loop.first }}
            {{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- (call.function.arguments | tojson) + '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|end|>\\n' }}
    {%- elif m.role == 'tool' %}
        {{- '<|im_start|>user\\n<tool_response>\\n' + m.content + '\\n</tool_response><|end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + m.role + '\\n' + m.content + '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

HERMES = (
    """{%- if tools %}
    {{- '<|im_start|>system\\nTools:\\n' }}
    {%- for tool in tools %}
        {{- (tool | tojson) + '\\n' }}
    {%- endfor %}
    {{- '<|end|>\\n' }}
{%- endif %}"""
    + _TURNS
)
"""As Qwen 2.5 and Hermes: each call between tags, text before it allowed."""

CHATML = _TURNS.replace("m.tool_calls or []", "[]")
"""No tools."""

MISTRAL = """
{%- if tools %}[AVAILABLE_TOOLS] {{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}
{%- for m in messages %}
    {%- if m.role == 'user' %}
        {{- '[INST] ' + m.content + '[/INST]' }}
    {%- elif m.tool_calls %}
        {{- '<|calls|> [' }}
        {%- for call in m.tool_calls %}
            {{- '{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) }}
            {{- ', "id": "' + call.id + '"}' }}
            {{- ', ' if not loop.last }}
        {%- endfor %}
        {{- ']<|end|>' }}
    {%- else %}
        {{- ' ' + m.content + '<|end|>' }}
    {%- endif %}
{%- endfor %}"""
"""A list of calls after a special token that clients never see."""

LLAMA = """
{%- for m in messages %}
    {%- if m.tool_calls and m.tool_calls | length > 1 %}
        {{- raise_exception('one call at a time') }}
    {%- endif %}
    {{- '<|head|>' + m.role + '\\n\\n' }}
    {%- if loop.first and tools %}
        {{- tools | tojson }}
    {%- endif %}
    {%- if m.tool_calls %}
        {{- '{"name": "' + m.tool_calls[0].function.name + '", ' }}
        {{- '"parameters": ' + (m.tool_calls[0].function.arguments | tojson) + '}' }}
    {%- else %}
        {{- m.content }}
    {%- endif %}
    {{- '<|end|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|head|>assistant\\n\\n' }}
{%- endif %}"""
"""As Llama 3.1: the bare object, one in a turn, and other words for the keys."""

PYTHONIC = HERMES.replace(
    """{"name": "' + call.function.name + '", "arguments": '""", """' + call.function.name + '('"""
).replace("""'}\\n</tool_call>'""", """')\\n</tool_call>'""")
"""A call that is no JSON."""
