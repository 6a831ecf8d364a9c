"""Image files scored by a fitted model: a run or an exported SavedModel.

`predictor` loads a model of either kind, `scoring` scores files with it one after another,
`results` writes tables and heat maps, and `beam` does all of it on many machines.
"""
