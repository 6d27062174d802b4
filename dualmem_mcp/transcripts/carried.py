"""A session read from the bytes of its files, as a package carries them, without writing them anywhere."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from dualmem_mcp.errors import UsageError
from dualmem_mcp.model.conversation import Session
from dualmem_mcp.transcripts.agents import AgentFile, agent_file
from dualmem_mcp.transcripts.records import parse_transcript
from dualmem_mcp.transcripts.safe_names import split_session_names
from dualmem_mcp.transcripts.session import assemble_session, transcript_warnings


def parse_session(files: Mapping[str, bytes], *, project: str = "") -> Session:
    """The session that the files make up, named as in Session.files; its own `files` are empty.

    Raises MalformedError if the session file holds no record, TamperedError for hostile names.
    """
    main_name, others = split_session_names(files)
    transcript = parse_transcript(io.BytesIO(files[main_name]), main_name)
    agent_files: list[AgentFile] = []
    warnings: list[str] = []
    for name in others:
        path = PurePosixPath(name)
        if not (path.name.startswith("agent-") and path.suffix == ".jsonl"):
            continue
        try:
            agent = parse_transcript(io.BytesIO(files[name]), name)
        except UsageError as error:
            warnings.append(f"{name}: {error.message}; what this agent did is unknown")
            continue
        agent_files.append(agent_file(path.stem, agent, files.get(str(path.with_suffix(".meta.json")), b"")))
        warnings.extend(f"{name}: {remark}" for remark in transcript_warnings(agent))
    return assemble_session(
        Path(project) / main_name, transcript, files=(), agent_files=agent_files, warnings=warnings
    )
