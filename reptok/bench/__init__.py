"""How fast the trainings run on a device, on random data.

Needs torch, timm, einops, safetensors and typer of our dependencies, and so runs from a checkout.
"""
