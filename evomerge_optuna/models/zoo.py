"""stub"""
ZOO = ("base", "ja", "add", "mul")
def zoo_path(name, home): raise NotImplementedError
