"""How is it shown? Renderers of `core.findings`; they know nothing else."""
