"""What a vault costs: use as it is recorded, list prices, estimates, budgets, proposals. Source: docs/cost.md."""
