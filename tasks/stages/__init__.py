"""The stages recipes are put together from: each calls steps and puts their tables into the round."""
