import sys

from virtiofsd.cli import main

sys.exit(main())
