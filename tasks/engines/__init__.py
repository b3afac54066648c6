"""Where the shards of a round's steps run: on threads of this process, or on the nodes of a Ray cluster.

An engine changes no key, no table and no version; it decides on speed only. Steps that ask a policy may run elsewhere
(``tasks.checkpointed.step``, ``scores``); all others, retrieval among them, stay in the process that runs the flow.
"""
