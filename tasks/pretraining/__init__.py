"""The quickstart's base model: made, and measured for its card."""
