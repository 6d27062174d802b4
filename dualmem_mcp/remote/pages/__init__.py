"""The user's own pages: conversations, search, devices, clients, conflicts, state; without any script.

`site` checks who asks and runs a view in a worker thread; a view (a plain function of a `Visit`) reads the user's
application and returns what to show; `rendering` makes HTML of it, under a policy that runs no script at all.
"""

from dualmem_mcp.remote.pages.site import Pages

__all__ = ["Pages"]
