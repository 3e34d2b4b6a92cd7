/* Presses "Go on" between two batches. Without it, the reader does. */
"use strict";
document.getElementById("restate-continue").requestSubmit();
