"""llama.cpp's compute buffers: its graph, in short, and the allocator that lays it out."""

from llamamodel_operator.core.memory.compute.buffers import ComputeBuffers, compute_buffers
from llamamodel_operator.core.memory.compute.model import ComputeModel

__all__ = ["ComputeBuffers", "ComputeModel", "compute_buffers"]
