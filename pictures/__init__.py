"""Pictures and images: pictures to digits, folders of pictures, the layout of a data set."""
