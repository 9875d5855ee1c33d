"""What a speech model knows about speech besides the brain: tasks, probes of its frozen layers, and their controls.

`tasks` lists the tasks that there are, `task` says what one is; neither loads torch, and so this file imports nothing.
"""
