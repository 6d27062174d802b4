"""The authorization server: remote clients register, the user lets them in by the passphrase, and they get tokens.

Everything is made here rather than by the SDK's own routes, which neither take client id metadata documents, nor
answer with `iss`, nor rotate with reuse detection. Source: docs/oauth.md, which names the specifications.
"""
