"""One kind of source each: files, checkpoints, SavedModels, Keras models, functions -> a graph whose variables are constants."""
