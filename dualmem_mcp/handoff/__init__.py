"""What a handoff carries and how it is shown: digest, brief, package, reconstruction."""
