"""DirectML asked on Linux: Microsoft's own libraries under Wine say which nodes they take.

`setup` makes the environment, `environment` finds it, `asker` holds the process that is asked, `server` answers a worker's requests
with it. Numbers do not come from here: the Direct3D of a stock Linux computes too little of what DirectML needs.
"""
