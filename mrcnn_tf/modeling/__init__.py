"""The network: backbone, pyramid, proposal network, heads, and how they are put together."""
