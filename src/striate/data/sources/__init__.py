"""Where pictures come from; each file reads one layout, `find` recognises which."""
