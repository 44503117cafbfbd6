"""Where images come from: folders, CSV tables, IDX files, named sets, remote stores."""
