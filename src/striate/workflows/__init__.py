"""What a user can do: one folder for each verb of the command line."""
