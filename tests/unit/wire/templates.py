"""Chat templates after those of well-known model families, in miniature, rendered as vLLM 0.32 renders them."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from typing import Any

from jinja2.sandbox import ImmutableSandboxedEnvironment

LLAMA = """
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = '' %}{% endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools %}{{ 'Environment: ipython\\n' }}{% endif %}
{{- system + '<|eot_id|>' }}
{%- if tools %}
    {%- set first = messages[0].content | trim %}{% set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
    {{- 'Respond in the format {"name": function name, "parameters": {}}.\\n\\n' }}
    {%- for tool in tools %}{{ tool | tojson(indent=4) }}{{ '\\n\\n' }}{% endfor %}
    {{- first + '<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {%- if message.tool_calls %}
        {%- set call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n{"name": "' + call.name + '", "parameters": ' }}
        {{- call.arguments | tojson }}{{ '}<|eot_id|>' }}
    {%- elif message.role == 'tool' %}
        {{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' }}
        {%- if message.content is mapping or message.content is iterable %}{{ message.content | tojson }}
        {%- else %}{{ message.content }}{% endif %}{{ '<|eot_id|>' }}
    {%- else %}
        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
    {%- endif %}
{%- endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}"""
"""Tools indented, in the first user turn, results as JSON strings; one call a turn."""

QWEN = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}{% if messages[0].role == 'system' %}{{ messages[0].content + '\\n\\n' }}{% endif %}
    {{- '# Tools\\n\\nSignatures are within <tools></tools> XML tags:\\n<tools>' }}
    {%- for tool in tools %}{{ '\\n' }}{{ tool | tojson }}{% endfor %}
    {{- '\\n</tools>\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call>' }}
    {{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{ '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {%- if message.role == 'tool' %}
        {%- if loop.index0 == 0 or messages[loop.index0 - 1].role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}
        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}
        {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
    {%- elif message.role == 'assistant' %}
        {{- '<|im_start|>assistant\\n' + message.content.split('</think>')[-1].lstrip('\\n') }}
        {%- for call in message.tool_calls or [] %}
            {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
            {{- call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif not (loop.first and message.role == 'system') %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{{- '<|im_start|>assistant\\n' }}"""
"""ChatML; tools inside the system turn, results inside a user turn."""

QWEN_XML = """
{%- if tools %}{{ '<|im_start|>system\\n<tools>' }}
{%- for tool in tools %}
    {{- '\\n<function>\\n<name>' ~ tool.function.name ~ '</name>' }}
    {%- set about = tool.function.description %}
    {%- if about %}{{ '\\n<description>' ~ (about | trim) ~ '</description>' }}{% endif %}
    {%- for name, field in ((tool.function.parameters or {}).properties or {}) | items %}
        {{- '\\n<parameter>\\n<name>' ~ name ~ '</name>\\n<type>' ~ field.type ~ '</type>' }}
        {%- if field.description %}{{ '\\n<description>' ~ field.description ~ '</description>' }}{% endif %}
        {{- '\\n</parameter>' }}
    {%- endfor %}
    {{- '\\n</function>' }}
{%- endfor %}{{ '\\n</tools><|im_end|>\\n' }}{% endif %}
{%- for message in messages %}
    {{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' + message.content }}
    {%- for call in message.tool_calls or [] %}
        {{- '\\n<tool_call>\\n<function=' + call.function.name + '>\\n' }}
        {%- for name, value in call.function.arguments | items %}
            {{- '<parameter=' + name + '>\\n' ~ (value if value is string else value | tojson) ~ '\\n</parameter>\\n' }}
        {%- endfor %}{{ '</function>\\n</tool_call>' }}
    {%- endfor %}{{ '<|im_end|>\\n' }}
{%- endfor %}{{ '<|im_start|>assistant\\n' }}"""
"""No JSON at all."""

MISTRAL = """
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{{- '<s>' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}
        {%- if tools and (messages | selectattr('role', 'equalto', 'user') | list | last) == message %}
            {{- '[AVAILABLE_TOOLS] [' }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, value in tool | items if key != 'return' %}
                    {%- if value is string %}{{ '"' + key + '": "' + value + '"' }}
                    {%- else %}{{ '"' + key + '": ' }}{{ value | tojson }}{% endif %}
                    {%- if not loop.last %}{{ ', ' }}{% endif %}
                {%- endfor %}
                {{- '}}' }}{{ ', ' if not loop.last else ']' }}
            {%- endfor %}
            {{- '[/AVAILABLE_TOOLS]' }}
        {%- endif %}
        {%- if loop.last and system is defined %}{{ '[INST] ' + system + '\\n\\n' + message.content + '[/INST]' }}
        {%- else %}{{ '[INST] ' + message.content + '[/INST]' }}{% endif %}
    {%- elif message.tool_calls %}
        {{- '[TOOL_CALLS] [' }}
        {%- for call in message.tool_calls %}
            {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' }}{{ ', ' if not loop.last else ']</s>' }}
        {%- endfor %}
    {%- elif message.role == 'assistant' %}{{ ' ' + message.content | trim + '</s>' }}
    {%- else %}{{ '[TOOL_RESULTS] {"content": ' + message.content }}
        {{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- endif %}
{%- endfor %}"""
"""Tools before the last user turn, strings in them not escaped; the system prompt in the last user turn."""

DEEPSEEK = """
{{- '<|begin|>' }}
{%- for message in messages %}
    {%- if message.role == 'user' %}{{ '<|User|>' + message.content }}
    {%- elif message.role == 'tool' %}{{ '<|tool_output|>' + message.content + '<|end|>' }}
    {%- elif message.tool_calls %}
        {{- '<|Assistant|>' + (message.content or '') }}
        {%- for call in message.tool_calls %}
            {{- '<|call|>function<|sep|>' + call.function.name + '\\n```json\\n' }}
            {{- call.function.arguments | tojson }}
            {{- '\\n```<|call_end|>' }}
        {%- endfor %}
    {%- else %}{{ '<|' + message.role + '|>' + message.content }}{% endif %}
{%- endfor %}{{ '<|Assistant|>' }}"""
"""Tool definitions left out; of calls, the name and the bare arguments."""

PARTS = """
{%- for message in messages %}
    {{- '<start_of_turn>' + message.role + '\\n' }}
    {%- if message.content is string %}{{ message.content | trim }}
    {%- else %}{% for part in message.content %}{{ part['text'] | trim }}{% endfor %}{% endif %}
    {{- '<end_of_turn>\\n' }}
{%- endfor %}{{ '<start_of_turn>model\\n' }}"""
"""Takes lists of parts, trims each and puts nothing between them: vLLM's content format `openai`."""


def render(template: str, request: Mapping[str, Any], *, content_format: str = "string") -> str:
    """The prompt: messages flattened, tools and calls as vLLM hands them to the template."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value, indent=None: json.dumps(value, ensure_ascii=False, indent=indent)
    messages = [_message(item, content_format) for item in copy.deepcopy(request["messages"])]
    tools = [_tool(tool) for tool in request["tools"]] if request.get("tools") else None
    return environment.from_string(template.lstrip("\n")).render(messages=messages, tools=tools)


def _message(item: dict[str, Any], content_format: str) -> dict[str, Any]:
    content = item.get("content")
    parts = [content] if isinstance(content, str) else content or []
    texts = [part if isinstance(part, str) else part["text"] for part in parts]
    texts = [text for text in texts if text]
    as_list = content_format == "openai" and item["role"] != "tool"
    item["content"] = [{"type": "text", "text": text} for text in texts] if as_list else "\n".join(texts)
    for call in item.get("tool_calls") or []:
        given = call["function"]["arguments"]
        call["function"]["arguments"] = json.loads(given) if isinstance(given, str) else given
    return item


def _tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    function = tool["function"]
    known = {key: function.get(key) for key in ("name", "description", "parameters")}
    return {"type": "function", "function": known | ({"strict": True} if function.get("strict") else {})}
