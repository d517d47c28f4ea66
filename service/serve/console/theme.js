// Set the chosen theme before anything is painted; without a choice, the browser's own preference holds.
const chosen = localStorage.getItem("softstep-theme");
if (chosen) document.documentElement.dataset.theme = chosen;
