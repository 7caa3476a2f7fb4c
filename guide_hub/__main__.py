"""`python -m guide_hub`, which launchers of several processes want: see `guide_hub.processes`."""

from guide_hub.cli import main

if __name__ == "__main__":
    main()
