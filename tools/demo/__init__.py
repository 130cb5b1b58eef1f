"""Building blocks of the embedded demo: corpus, tokenizer, language model, SAEs, checks."""
