"""Documents to token shards: tokenizers, parts, shards, SFT sets, and their verification."""
