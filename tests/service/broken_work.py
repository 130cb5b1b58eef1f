"""A work module that cannot be imported, as in a broken installation."""

raise ImportError("libtorch_cpu.so: cannot open shared object file")
