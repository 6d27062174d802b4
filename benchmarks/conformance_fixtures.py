"""The MCP server that the conformance suite's scenarios call: its tools, prompts and resources named `test_…`.

What each has to answer stands in the suite (`conformance list`, and the description of each scenario).
Source: npm package @modelcontextprotocol/conformance, 0.1.16 and 0.2.0-alpha.12.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import mcp_types as types
from conformance_forms import (
    CACHE,
    COLOR_STEP,
    CONFIRM,
    CONTEXT,
    DEFAULTS,
    ENUMS,
    HEADER_SCHEMA,
    NAME,
    NAME_STEP,
    PNG,
    PROMPTS,
    ROOTS,
    SCHEMA_2020_12,
    WAV,
    Json,
    embedded,
    form,
    sampling,
    text,
)
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, PromptsListChanged, ToolsListChanged
from mcp.shared.exceptions import MCPError

Context = ServerRequestContext[Any, Any]
Tool = Callable[[Context, types.CallToolRequestParams], Awaitable[Json]]


class Fixtures:
    """The server; one for each run."""

    def __init__(self) -> None:
        self._bus = InMemorySubscriptionBus()
        self._key = secrets.token_bytes(32)
        self.tools: dict[str, Tool] = {
            "test_simple_text": self._fixed(text("This is a simple text response for testing.")),
            "test_image_content": self._fixed({"type": "image", "data": PNG, "mimeType": "image/png"}),
            "test_audio_content": self._fixed({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
            "test_embedded_resource": self._fixed(
                embedded("test://embedded-resource", "This is an embedded resource content.")
            ),
            "test_multiple_content_types": self._fixed(
                text("Multiple content types test:"),
                {"type": "image", "data": PNG, "mimeType": "image/png"},
                embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json"),
            ),
            "json_schema_2020_12_tool": self._fixed(text("as its schema says")),
            "test_custom_headers": self._fixed(text("the headers fit")),
            "test_error_handling": self._error,
            "test_tool_with_logging": self._logging,
            "test_logging_tool": self._logging,
            "test_tool_with_progress": self._progress,
            "test_sampling": self._sampling,
            "test_elicitation": self._elicitation,
            "test_elicitation_sep1034_defaults": self._asking(DEFAULTS),
            "test_elicitation_sep1330_enums": self._asking(ENUMS),
            "test_missing_capability": self._missing_capability,
            "test_streaming_elicitation": self._input({"user_name": NAME}),
            "test_trigger_tool_change": self._changing(ToolsListChanged()),
            "test_trigger_prompt_change": self._changing(PromptsListChanged()),
            "test_input_required_result_elicitation": self._input({"user_name": NAME}),
            "test_input_required_result_sampling": self._input(
                {"capital_question": sampling("What is the capital of France?")}
            ),
            "test_input_required_result_list_roots": self._input({"client_roots": ROOTS}),
            "test_input_required_result_request_state": self._input({"confirm": CONFIRM}, state="one"),
            "test_input_required_result_tampered_state": self._input({"confirm": CONFIRM}, state="one"),
            "test_input_required_result_multiple_inputs": self._input(
                {"user_name": NAME, "greeting": sampling("Generate a greeting", 50), "client_roots": ROOTS},
                state="one",
            ),
            "test_input_required_result_multi_round": self._rounds,
            "test_input_required_result_capabilities": self._capabilities,
        }
        self.server: Server[Any] = Server(
            "conformance-fixtures",
            version="1",
            get_tool_input_schema=lambda name: schema_of(name) if name in self.tools else None,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscribe_resource=self._accept,
            on_unsubscribe_resource=self._accept,
            on_subscriptions_listen=ListenHandler(self._bus),
            on_list_prompts=self._list_prompts,
            on_get_prompt=self._get_prompt,
            on_completion=self._complete,
            on_set_logging_level=self._accept,
        )

    def options(self) -> InitializationOptions:
        """What it says of itself."""
        changed = NotificationOptions(prompts_changed=True, tools_changed=True, resources_changed=True)
        return self.server.create_initialization_options(changed)

    async def _accept(self, _context: Context, _params: Any) -> types.EmptyResult:
        return types.EmptyResult()

    async def _list_tools(self, _context: Context, _params: Any) -> Json:
        tools = [{"name": name, "description": name, "inputSchema": schema_of(name)} for name in self.tools]
        return {"tools": tools, "resultType": "complete", **CACHE}

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> Json:
        if (tool := self.tools.get(params.name)) is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name}")
        return await tool(context, params)

    def _fixed(self, *content: Json) -> Tool:
        async def answer(_context: Context, _params: types.CallToolRequestParams) -> Json:
            return done(*content)

        return answer

    async def _error(self, _context: Context, _params: types.CallToolRequestParams) -> Json:
        return {**done(text("This tool intentionally returns an error for testing")), "isError": True}

    async def _logging(self, context: Context, _params: types.CallToolRequestParams) -> Json:
        for words in ("Tool execution started", "Tool processing data", "Tool execution completed"):
            params = types.LoggingMessageNotificationParams(level="info", data=words)
            if context.protocol_version < "2026" or _log_level(context):
                await context.session.send_notification(
                    types.LoggingMessageNotification(params=params), related_request_id=context.request_id
                )
            await asyncio.sleep(0.05)
        return done(text("logged"))

    async def _progress(self, context: Context, _params: types.CallToolRequestParams) -> Json:
        for step in (0, 50, 100):
            await context.session.report_progress(step, 100, f"{step} of 100")
            await asyncio.sleep(0.05)
        return done(text("done"))

    async def _sampling(self, context: Context, params: types.CallToolRequestParams) -> Json:
        words = (params.arguments or {}).get("prompt", "")
        reply = await ask(context, sampling(words))
        return done(text(f"LLM response: {reply['content']['text']}"))

    async def _elicitation(self, context: Context, params: types.CallToolRequestParams) -> Json:
        fields = {
            "username": {"type": "string", "description": "User's response"},
            "email": {"type": "string", "description": "User's email address"},
        }
        message = (params.arguments or {}).get("message", "")
        reply = await ask(context, form(message, fields, ["username", "email"]))
        return done(text(f"User response: action: {reply['action']}, content: {json.dumps(reply.get('content'))}"))

    def _asking(self, request: Json) -> Tool:
        async def answer(context: Context, _params: types.CallToolRequestParams) -> Json:
            reply = await ask(context, request)
            told = json.dumps(reply.get("content", {}))
            return done(text(f"Elicitation completed: action={reply['action']}, content={told}"))

        return answer

    async def _missing_capability(self, context: Context, _params: types.CallToolRequestParams) -> Json:
        capabilities = context.session.client_capabilities
        if capabilities is None or capabilities.sampling is None:
            raise MCPError(
                types.MISSING_REQUIRED_CLIENT_CAPABILITY,
                "This tool needs sampling",
                {"requiredCapabilities": {"sampling": {}}},
            )
        return done(text("has sampling"))

    def _changing(self, event: ToolsListChanged | PromptsListChanged) -> Tool:
        async def answer(_context: Context, _params: types.CallToolRequestParams) -> Json:
            await self._bus.publish(event)
            return done(text("changed"))

        return answer

    def _input(self, requests: Json, state: str | None = None) -> Tool:
        async def answer(_context: Context, params: types.CallToolRequestParams) -> Json:
            replies = self._replies(params, requests, state)
            if replies is None:
                return self._required(requests, state)
            return done(text(f"Hello, {_name(replies)}! state-ok {json.dumps(replies)}"))

        return answer

    async def _rounds(self, _context: Context, params: types.CallToolRequestParams) -> Json:
        if self._replies(params, COLOR_STEP, "two", strict=False) is not None:
            return done(text("both steps are done"))
        if self._replies(params, NAME_STEP, "one", strict=False) is not None:
            return self._required(COLOR_STEP, "two")
        return self._required(NAME_STEP, "one")

    async def _capabilities(self, context: Context, params: types.CallToolRequestParams) -> Json:
        capabilities = context.session.client_capabilities
        requests: Json = {}
        if capabilities is not None and capabilities.sampling is not None:
            requests["sampled"] = sampling("Say something")
        if capabilities is not None and capabilities.elicitation is not None:
            requests["user_name"] = NAME
        if not requests or self._replies(params, requests, None) is not None:
            return done(text("done"))
        return self._required(requests, None)

    def _required(self, requests: Json, state: str | None) -> Json:
        required: Json = {"resultType": "input_required", "inputRequests": requests}
        return required if state is None else {**required, "requestState": self._sealed(state)}

    def _replies(self, params: Any, requests: Json, state: str | None, *, strict: bool = True) -> Json | None:
        """The replies to these requests, if they are all there; raises MCPError for a state that is not ours."""
        given = params.model_dump(by_alias=True, mode="json", exclude_none=True)
        replies, sealed = given.get("inputResponses"), given.get("requestState")
        if replies is None:
            return None
        if state is not None and not hmac.compare_digest(sealed or "", self._sealed(state)):
            if strict:
                raise MCPError(types.INVALID_PARAMS, "The request state is not one that this server gave")
            return None
        if not isinstance(replies, dict) or not all(fits(replies.get(key), requests[key]) for key in requests):
            return None
        return {key: replies[key] for key in requests}

    def _sealed(self, state: str) -> str:
        return f"{state}.{hmac.new(self._key, state.encode(), hashlib.sha256).hexdigest()}"

    async def _list_resources(self, _context: Context, _params: Any) -> Json:
        resources = [
            {"uri": uri, "name": uri, "mimeType": "text/plain"}
            for uri in ("test://static-text", "test://static-binary", "test://watched-resource")
        ]
        return {"resources": resources, "resultType": "complete", **CACHE}

    async def _list_templates(self, _context: Context, _params: Any) -> Json:
        template = {"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}
        return {"resourceTemplates": [template], "resultType": "complete", **CACHE}

    async def _read_resource(self, _context: Context, params: types.ReadResourceRequestParams) -> Json:
        uri = str(params.uri)
        if uri == "test://static-binary":
            contents: Json = {"uri": uri, "mimeType": "image/png", "blob": PNG}
        elif uri.startswith("test://template/"):
            number = uri.split("/")[3]
            told = {"id": number, "templateTest": True, "data": f"Data for ID: {number}"}
            contents = {"uri": uri, "mimeType": "application/json", "text": json.dumps(told)}
        elif uri in {"test://static-text", "test://watched-resource"}:
            words = "This is the content of the static text resource."
            contents = {"uri": uri, "mimeType": "text/plain", "text": words}
        else:
            raise MCPError(types.INVALID_PARAMS, f"Resource {uri} not found", {"uri": uri})
        return {"contents": [contents], "resultType": "complete", **CACHE}

    async def _list_prompts(self, _context: Context, _params: Any) -> Json:
        prompts = [{"name": name, "description": name, **given} for name, given in PROMPTS.items()]
        return {"prompts": prompts, "resultType": "complete", **CACHE}

    async def _get_prompt(self, _context: Context, params: types.GetPromptRequestParams) -> Json:
        arguments = params.arguments or {}
        match params.name:
            case "test_simple_prompt":
                content = [text("This is a simple prompt for testing.")]
            case "test_prompt_with_arguments":
                first, second = arguments.get("arg1"), arguments.get("arg2")
                content = [text(f"Prompt with arguments: arg1='{first}', arg2='{second}'")]
            case "test_prompt_with_embedded_resource":
                words = "Embedded resource content for testing."
                content = [
                    embedded(arguments.get("resourceUri", ""), words),
                    text("Please process the embedded resource above."),
                ]
            case "test_prompt_with_image":
                image = {"type": "image", "data": PNG, "mimeType": "image/png"}
                content = [image, text("Please analyze the image above.")]
            case "test_input_required_result_prompt":
                requests = {"user_context": CONTEXT}
                if (replies := self._replies(params, requests, None)) is None:
                    return self._required(requests, None)
                content = [text(json.dumps(replies))]
            case _:
                raise MCPError(types.INVALID_PARAMS, f"Unknown prompt: {params.name}")
        return {"messages": [{"role": "user", "content": each} for each in content], "resultType": "complete"}

    async def _complete(self, _context: Context, params: types.CompleteRequestParams) -> Json:
        values = [word for word in ("paris", "park", "party") if word.startswith(params.argument.value)]
        return {"completion": {"values": values, "total": len(values), "hasMore": False}, "resultType": "complete"}


def schema_of(name: str) -> Json:
    """A fixture's input schema."""
    named = {"json_schema_2020_12_tool": SCHEMA_2020_12, "test_custom_headers": HEADER_SCHEMA}
    return named.get(name, {"type": "object"})


def done(*content: Json) -> Json:
    """A tool's result."""
    return {"content": list(content), "resultType": "complete"}


def fits(reply: Any, request: Mapping[str, Any]) -> bool:
    """Whether that can be the reply to that request."""
    if not isinstance(reply, dict):
        return False
    needed = {"elicitation/create": "action", "sampling/createMessage": "content", "roots/list": "roots"}
    return needed[request["method"]] in reply


def _name(replies: Json) -> str:
    return str(replies.get("user_name", {}).get("content", {}).get("name", ""))


def _log_level(context: Context) -> bool:
    return "io.modelcontextprotocol/logLevel" in dict(context.meta or {})


async def ask(context: Context, request: Json) -> Json:
    """The client's reply, asked for on the response to the request being handled."""
    channel = context.session._request_outbound
    return await channel.send_raw_request(request["method"], request["params"])
