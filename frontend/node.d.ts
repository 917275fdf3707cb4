// In a page there is none; the tests load the script with node.
declare const module: { exports: unknown } | undefined;
