from ilqljax.cli import main

main()
