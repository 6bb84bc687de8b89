/* Before anything is painted: the reader's choice of light or dark. */
(() => {
  let theme = 'auto';
  try { theme = localStorage.getItem('theme') || 'auto' } catch { /* storage refused: auto it is */ }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
  document.documentElement.dataset.js = '1';
})();
