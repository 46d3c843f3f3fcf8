"""What is deployed: export, the bundle, its engines and runtime. Loading needs numpy and an engine, never torch."""
