"""What every notebook needs: setup report, checks, source display, interactive pictures, claims, figures."""
