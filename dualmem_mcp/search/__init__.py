"""Search over memory and conversations: what is indexed, how a query is answered, how results are ranked."""
