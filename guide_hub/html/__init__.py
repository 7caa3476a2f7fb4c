"""`--report DIR`: one self-contained HTML page of a run, in a private edition and in a public one."""
