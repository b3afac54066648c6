"""Reports of rounds and campaigns: figures of their tables, and one page of HTML that shows them."""
