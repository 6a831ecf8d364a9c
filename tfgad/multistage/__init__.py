"""The Multistage GAN (Liu et al. 2020): paint defects on a new fabric, and learn to segment them.

"Multistage GAN for Fabric Defect Detection", IEEE Transactions on Image Processing 29, 2020, by
Liu, Wang, Su, Du and Tao:

1. `defect_generator`: a conditional GAN generates patches of fabric with a defect and its mask,
   given the style of a fabric as the Gram matrix of its features (`style`). It draws the defect on
   a good patch of the fabric or, as in the paper, on nothing;
2. `fusion`: a network T blends such a patch into an image of good fabric without a seam;
3. `segmenter`: DeepLab V3, trained on fabrics with known defects, then fine-tuned on painted
   defects on the new fabric (`adaptation`). Unlike the paper's, it is fine-tuned with replay of the
   known defects, and may learn from known defects transplanted to the new fabric (`transplants`).

Stages 1 and 2 together are the defect painter, for short the painter (`painter`).

The paper does not give sizes, layers and loss weights. Each choice is stated where it is made.
"""
