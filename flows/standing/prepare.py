"""What is done once a server is up and before workers start: killed runs are marked, everything is deployed.

A process of its own, since deploying imports every flow. python -m flows.standing.prepare [POOL…]
"""

from __future__ import annotations

import sys

from flows.failures import report


def main(pools: list[str]) -> int:
    """Returns the exit code; an error is one line on stderr."""
    from flows.deploying import deploy_all
    from flows.server import mark_crashed

    try:
        crashed = mark_crashed(pools)
        deployed = deploy_all()
    except Exception as error:  # noqa: BLE001  the end of this process
        return report(error)
    print(f"{crashed} killed runs marked as crashed; deployed: {', '.join(deployed)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
