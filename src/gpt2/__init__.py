"""GPT-2, one module a chapter: import what you need from the module that teaches it."""
