"""The Multistage GAN (Liu et al. 2020): paint defects on a new fabric, and learn to segment them.

"Multistage GAN for Fabric Defect Detection", IEEE Transactions on Image Processing 29, 2020, of
Liu, Wang, Su, Du and Tao:

1. `defect_generator`: a conditional GAN makes patches of fabric with a defect and its mask, given
   the style of a fabric as the Gram matrix of its features (`style`); on a good patch of it, or as
   in the paper on nothing;
2. `fusion`: a network T sets such a patch into an image of good fabric so that no seam is left;
3. `segmenter`: DeepLab V3, trained on fabrics whose defects are known, and then on what the first
   two have painted on the new one (`adaptation`). Unlike the paper's it learns from the known
   defects too, transplanted to the new fabric (`transplants`) and where they were.

The paper leaves sizes, layers and weights of the losses open. Each choice is stated where it is
made.
"""
